"""Reports as terminal output, Markdown, LaTeX, HTML with SVG charts, CSV and JSON."""
