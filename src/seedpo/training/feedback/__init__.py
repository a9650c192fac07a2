"""People in the place of a reward: images go into a study, and their votes come back as preferences.

    feedback = HumanFeedback(Path("studies/circles"), images_per_prompt=4)
    preference = feedback.compare(images, prompts)        # (P, 4, 4), once everybody has voted

Meanwhile ``seedpo study serve studies/circles`` shows the images to raters. Images that were judged before, with
the same prompt, are not shown again: a run that was killed finds its votes when it is resumed.
"""
