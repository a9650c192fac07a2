"""Human preference studies: created, shown blinded in a browser, voted on, stored, analysed and exported.

=====================================  ========================================================================
``records``, ``errors``                what a study consists of, and what it refuses
``settings``, ``images``, ``folder``   a study on the disk: ``study.yaml``, images, groups
``design``, ``image_folders``          a new study from folders of images
``units``, ``assignment``              what a rater sees next: pure, seeded, balanced
``status``                             progress of questions and raters
``preferences``, ``export``            votes for training and for other programs
``simulated``                          raters over HTTP for the demonstration and tests
``votes/``                             shows and votes in a database, each durable before it is acknowledged
``analysis/``                          from votes to numbers and their page; plans of new studies
``web/``                               the application, its server, and links for raters
=====================================  ========================================================================

It needs the extra ``seedpo[study]``, and never torch.
"""
