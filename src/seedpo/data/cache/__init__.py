"""What is computed once and read many times: latents, embedded prompts, log-probabilities of the reference.

``seedpo cache build`` writes them into a folder; runs only read it (:mod:`seedpo.data.cache.store`).
"""
