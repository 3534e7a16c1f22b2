"""Everything that imports Ray: thin actors around plain hosts."""
