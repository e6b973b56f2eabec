"""metrics.csv: a row a logged step, appended as training goes on."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from semidg.files import write_error, write_text


class MetricsFile:
    """Appends rows; a column that appears later (validation) makes the file be written again with it."""

    def __init__(self, path: Path, keep_to: int = 0) -> None:
        """keep_to: rows of later steps are dropped: they were written after the checkpoint that is resumed."""
        self.path = path
        self.columns: list[str] = []
        self.rows: list[dict[str, str]] = []
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as stream:
                reader = csv.DictReader(stream)
                rows = [row for row in reader if None not in row and None not in row.values()]
            self.columns = list(reader.fieldnames or [])
            self.rows = [row for row in rows if row.get("step", "").isdigit() and int(row["step"]) <= keep_to]
            self._rewrite()

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row; values are written with 6 significant digits, missing ones stay empty."""
        new = [name for name in row if name not in self.columns]
        texts = {name: str(int(v)) if name == "step" else f"{v:.6g}" for name, v in row.items()}
        self.rows.append(texts)
        if new:
            self.columns += new
            self._rewrite()
            return
        try:
            with self.path.open("a", encoding="utf-8", newline="") as stream:
                stream.write(self._text([texts]))
        except OSError as error:
            raise write_error(self.path, error) from error

    def _text(self, rows: list[dict[str, str]], header: bool = False) -> str:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return buffer.getvalue()

    def _rewrite(self) -> None:
        write_text(self.path, self._text(self.rows, header=True) if self.columns else "")
