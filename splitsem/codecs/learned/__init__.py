"""Learned codecs: an encoder on the device and a decoder on the server, trained together for one crossing tensor."""
