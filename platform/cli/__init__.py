"""The `crossview` command, a module per group of subcommands."""
