"""A web shop in FastAPI that also packs what it sells, in the same process: see web.py."""
