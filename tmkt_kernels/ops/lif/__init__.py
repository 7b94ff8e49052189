"""The leaky integrate-and-fire neuron and its relatives: h = a v + b x + c."""
