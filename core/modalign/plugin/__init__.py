"""The plugin platform: what a plugin may say, how it is found, loaded and asked."""
