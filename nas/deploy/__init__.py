"""Deploy a trained network: export it, quantise it to int8, write its model card, and classify images with it."""
