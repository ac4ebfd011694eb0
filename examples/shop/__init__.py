"""A shop of two services that share one topic: see model.py, storefront.py and billing.py, in this order."""
