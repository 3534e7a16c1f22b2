"""The engine over HTTP: `app` makes the application, `raysaga serve` runs it."""
