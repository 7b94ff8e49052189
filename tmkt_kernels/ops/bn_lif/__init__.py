"""Batch normalisation and the neuron as one operator."""
