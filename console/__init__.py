"""The operator's page, and the command that serves it: `raysaga serve`."""
