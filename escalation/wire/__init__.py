"""Generated protobuf code and the codec; wire types stop at the codec."""
