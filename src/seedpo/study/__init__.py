"""Human preference studies: pairs are laid out, shown blinded in a browser, voted on, stored, analysed and exported.

Needs the extra ``seedpo[study]``, and never torch.
"""
