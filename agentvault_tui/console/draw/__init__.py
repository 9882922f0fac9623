"""How records become rows: words, glyphs, colours, places."""
