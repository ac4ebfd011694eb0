"""A web shop in Flask: web.py takes orders over HTTP and publishes them, worker.py handles them, model.py is shared."""
