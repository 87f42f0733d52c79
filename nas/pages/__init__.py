"""Write pages of one file each: style sheet, scripts, charts and data are inside, and nothing is loaded."""
