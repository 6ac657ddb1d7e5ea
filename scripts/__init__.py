"""Entry points for the command line; each calls one function of the bundle."""
