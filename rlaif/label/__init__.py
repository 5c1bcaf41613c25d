"""Labels: responses are sampled, judged under each principle, scored, and picked.

    prompts → sample → judge → (scores) → pick → train

Everything here is a plain function from records to records or rows. Nothing here knows of files
being written, of a journal, or of torch; templates are the only files that are read.
"""
