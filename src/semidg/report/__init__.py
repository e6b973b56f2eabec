"""Pictures and pages for people; the only floor that draws."""
