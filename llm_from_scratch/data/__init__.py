"""Text to train on: corpora, downloaded files, packing into token streams, batches."""
