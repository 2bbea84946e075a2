"""The whole evaluation of a checkpoint: `collect` measures, `panels` draws, `page` writes Markdown."""
