"""The quaestor command: one module per group of subcommands."""
