"""Action recognition: a fine-tuned classifier on clips, tested on several views of a recording."""
