"""The verbs of the command line, a module each: their flags, and what they call. Nothing heavy is imported here."""
