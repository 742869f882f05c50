"""One file for each runtime: which stages make its artifact, from which request, and how much disk that takes."""
