"""Human preference studies: created, shown blinded in a browser, voted on, stored, analysed and exported.

=====================================  ========================================================================
``records``, ``errors``                what a study consists of, and what it refuses
``settings``, ``images``, ``folder``   a study on the disk: ``study.yaml``, images, groups
``design``, ``image_folders``          a new study from folders of images
``assignment``                         what a rater sees next: pure, seeded, balanced
``store``, ``tally``                   shows and votes, each durable before it is acknowledged
``database``, ``tables``               SQLite or PostgreSQL below the store
``app``, ``site``, ``security``        the web application; ``rater_pages``, ``admin_pages``: its routes
``serving``, ``status``                the server, links for raters, progress
``vote_statistics``, ``comparisons``   from votes to numbers; ``likes``: of single images
``analysis``, ``analysis_page``        all of a study
``power``, ``plans``                   how many raters and prompts a difference needs
``preferences``, ``export``            votes for training and for other programs
``simulated``                          raters over HTTP for the demonstration, tests and load measurements
=====================================  ========================================================================

It needs the extra ``seedpo[study]``, and never torch.
"""
