"""Learned codecs: an encoder on the edge and a decoder on the server, trained together for one crossing tensor."""
