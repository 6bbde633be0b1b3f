"""Reports as text, tables, HTML, SVG charts, CSV and JSON."""
