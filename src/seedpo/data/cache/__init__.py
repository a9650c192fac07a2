"""What is computed once and used again: latents, embedded prompts, log-probabilities of the reference.

In memory (:mod:`seedpo.data.cache.live`) or in a folder that many runs share (:mod:`seedpo.data.cache.store`).
"""
