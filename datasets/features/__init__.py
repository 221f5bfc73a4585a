"""Features that others computed: read from arrays and databases, packed for memory-mapped reading."""
