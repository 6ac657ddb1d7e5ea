"""The trained network elsewhere: runtimes, exported files, the bundle's zip."""
