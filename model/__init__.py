"""The language model: network, gradient-averaging updater, training, evaluation. Knows no Luigi."""
