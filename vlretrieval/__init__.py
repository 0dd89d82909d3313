"""CT and words: an archive that is indexed once and searched in words or by example."""
