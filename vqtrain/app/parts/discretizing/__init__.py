"""The stages of ``vqtrain discretize``, each of which is done once."""
