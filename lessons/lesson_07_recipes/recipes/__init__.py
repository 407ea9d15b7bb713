"""Published ablations as data, and a recipe picker that states how sure it is (../tables/README.md has the sources)."""
