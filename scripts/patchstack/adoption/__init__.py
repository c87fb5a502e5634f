"""Take an existing fork to what patchstack needs to know of it; nothing here changes the fork."""
