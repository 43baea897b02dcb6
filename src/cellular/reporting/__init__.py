"""Two models side by side: tables, figures, and one page with all results."""
