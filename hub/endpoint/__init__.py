"""Code for an Inference Endpoint and a server."""
