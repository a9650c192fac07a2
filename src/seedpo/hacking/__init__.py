"""The benchmark of reward hacking: truth and diversity at equal proxy reward, with and without the entropy term."""
