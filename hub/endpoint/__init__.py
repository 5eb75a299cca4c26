"""What an Inference Endpoint runs."""
