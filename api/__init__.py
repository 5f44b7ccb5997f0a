"""Every way in: the gateway, the console, the command line, the providers."""
