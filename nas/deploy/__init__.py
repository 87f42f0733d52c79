"""From a trained network to one that is used: export, int8, model card, prediction."""
