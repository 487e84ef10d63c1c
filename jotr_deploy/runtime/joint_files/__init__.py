"""Files of joints and boxes made elsewhere: one module for each family of layouts."""
