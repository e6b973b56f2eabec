"""What is wrong with a data set: every file looked at once, every finding a row (docs/how-to/audit-your-data.md)."""

from semidg.experiment.audit.audit import Audit, audit
from semidg.experiment.audit.issues import KINDS, SEVERITIES, Issue, write_issues

__all__ = ["KINDS", "SEVERITIES", "Audit", "Issue", "audit", "write_issues"]
