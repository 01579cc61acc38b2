"""Growth of any network that torch.export takes: what can grow is found on the graph of its calls, and proved."""
