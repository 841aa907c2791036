"""SSH start: the server runs on another machine as long as the device's ssh connection to it."""
