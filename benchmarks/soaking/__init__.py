"""A soak of the page: planted bodies, visitors by protocol and by browser, and what the server takes."""
